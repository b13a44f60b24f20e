"""The rules: what each operation does, inside one transaction of the writer."""
