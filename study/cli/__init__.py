"""What the commands share: their arguments, their console, their exit status."""
