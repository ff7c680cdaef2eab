"""What has run: one directory a trial, identified by content."""
