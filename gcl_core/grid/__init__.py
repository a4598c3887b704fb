"""Many runs: a file of cells, their steps, on many processes and machines."""
