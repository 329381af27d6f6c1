"""The version of this project, for packaging, the commands and `study.__version__`."""

VERSION = "0.2.0"
