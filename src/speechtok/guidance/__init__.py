"""Teachers of the codec's levels, and what is learned from them."""
