"""Redeploy on promotion: an alias that moves replaces the model of a running job; every step is written down."""
