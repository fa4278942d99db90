"""Routers that know photographs: what people have, beside what is made by formula."""
