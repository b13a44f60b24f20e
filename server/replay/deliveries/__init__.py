"""How each noun's operations are sent, and how their effect is read back."""
