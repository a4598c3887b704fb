"""What was measured: run records, tables, the paper's numbers beside ours."""
