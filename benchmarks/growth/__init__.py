"""What grows with what is stored: time per write and time per page at sizes a decade apart."""
