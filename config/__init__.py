"""Configuration: its typed model, its loading with errors that say where, and what changed."""

VERSION = "0.1.0"
