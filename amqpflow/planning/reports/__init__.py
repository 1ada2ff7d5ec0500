"""Say what a plan, a broker or a file comes to: consequences, drift, explanations, status, permissions."""
