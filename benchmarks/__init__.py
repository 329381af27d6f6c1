"""Speed against named peers, as ratios measured side by side in one run: `make bench`, `make bench-gpu`; README.md."""
