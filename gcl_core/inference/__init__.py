"""What a finished run is good for: it names the class of new pictures, here or elsewhere."""
