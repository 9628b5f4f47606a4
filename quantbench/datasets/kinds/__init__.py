"""One file for each kind of data set; `load` is its one public function."""
