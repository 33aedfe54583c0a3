"""One module per layout that AffectNet has been given out in, and what all of them become."""
