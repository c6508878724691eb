"""What a trained network looks at, and what it withstands."""
