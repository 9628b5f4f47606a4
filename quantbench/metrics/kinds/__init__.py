"""One file for each metric; a file's name with dashes is the metric's name, and `measure` its one public function."""
