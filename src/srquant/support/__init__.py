"""What the rest stands on: errors, files, settings, progress, processes. It knows no network and no picture."""
