"""What the notebooks are made with, and what executes and copies them."""
