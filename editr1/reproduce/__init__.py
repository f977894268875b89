"""The paper's claims on the shapes world: the runs that are needed, what is compared, and the page that says what holds."""
