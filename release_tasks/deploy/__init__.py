"""How code gets to hosts, and traffic to code: what one host does, who brings it there, and what may be set."""
