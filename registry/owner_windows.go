package registry

// keepOwner has nothing to do: a new file inherits the folder's access list.
func keepOwner(string, string) error { return nil }
