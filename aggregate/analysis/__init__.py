"""What result files say: read, checked, merged, and every figure derived. It knows no table and no plot."""
