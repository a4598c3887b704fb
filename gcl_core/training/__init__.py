"""What trains and evaluates: a run of two stages, its folder, its speed."""
