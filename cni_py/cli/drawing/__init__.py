"""The inventory as a picture: what there is to draw (`picture`), and a module for each format."""
