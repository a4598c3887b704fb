"""How fast training is, and the plain loop that it is compared with."""
