# A machine, and a user who may do nothing else on it: the program alone is enough. Its store, with the cache of builds, is in
# ~/.local/share/wherry; who may push is kept in ~/.docker/config.json.
wherry login -u ci --password-stdin registry.corp < "$HOME/registry-token"
wherry build --push -t registry.corp/team/app:1 .
