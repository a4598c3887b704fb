"""What is trained, declared: settings with their sources, and the methods of the study."""
