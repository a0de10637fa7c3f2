"""Several landmark models together: scored on images that none of them has seen, chosen on others."""
