#compdef wherry
# zsh completion for wherry. For the running shell: source <(wherry completion zsh)
# Behind an alias (alias docker=wherry): compdef _wherry docker
_wherry() {
	local program=${${(Q)words[1]}/#\~\//$HOME/} adds
	local -a answer
	[[ ${program:t} == wherry ]] || program=wherry
	answer=("${(@f)$("$program" __complete zsh "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
	# The first line says what the shell adds, the others are candidates and their descriptions.
	adds=$answer[1]
	shift answer
	case $adds in
	files) compset -P '-*='; _files ;;
	folders) compset -P '-*='; _files -/ ;;
	nospace) _describe wherry answer -S '' ;;
	*) _describe wherry answer ;;
	esac
}
# Autoloaded from a folder of $fpath this file is the function; elsewhere it defines it.
if [[ $funcstack[1] == _wherry ]]; then
	_wherry "$@"
elif (( $+functions[compdef] )); then
	compdef _wherry wherry
fi
