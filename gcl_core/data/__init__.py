"""Images, how many of each class, which are drawn, and the batches made of them."""
