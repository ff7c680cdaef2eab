"""From the ledger to tables, figures and a page."""
