"""What planning is about: observations, changes, plans, findings, approvals, the manifest."""
