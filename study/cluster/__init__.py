"""Who trains what, where: shares, the ledger of launches, workers on submitit."""
