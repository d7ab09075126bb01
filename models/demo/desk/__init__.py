"""The language of the demo's support desk: what customers ask and what each style answers."""
