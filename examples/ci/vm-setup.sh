# vm-setup.sh USER, once by root: steps of that user's builds have more than one id, so that what they run can change its user.
set -eu
command -v newuidmap > /dev/null || apt-get install -y uidmap
# The ids have to be nobody else's.
grep -q "^$1:" /etc/subuid || usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "$1"
# Since 23.10 Ubuntu lets only programs with a profile have user namespaces.
if [ "$(cat /proc/sys/kernel/apparmor_restrict_unprivileged_userns 2> /dev/null)" = 1 ]; then
	echo 'abi <abi/4.0>, profile wherry /usr/local/bin/wherry flags=(unconfined) { userns, }' > /etc/apparmor.d/wherry
	apparmor_parser -r /etc/apparmor.d/wherry
fi
