"""How the people that ship are made, from CC0 data of MakeHuman (MPFB2). Needed only to make them anew."""
