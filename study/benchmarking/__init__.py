"""How fast architectures train and classify on the device at hand."""
