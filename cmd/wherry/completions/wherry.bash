# bash completion for wherry. For the running shell: source <(wherry completion bash)
# Behind an alias (alias docker=wherry): complete -F _wherry docker
_wherry() {
	local program=${1/#\~\//$HOME/} answer IFS=$'\n'
	[[ ${program##*/} == wherry ]] || program=wherry
	COMPREPLY=()
	answer=$("$program" __complete bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null) || return
	# The first line says what the shell adds, the others are the candidates; none has a blank or a wildcard in it.
	[[ $answer == *$'\n'* ]] && COMPREPLY=(${answer#*$'\n'})
	case ${answer%%$'\n'*} in
	files) compopt -o default 2>/dev/null || COMPREPLY=($(compgen -f -- "$2")) ;;
	folders) compopt -o dirnames 2>/dev/null || COMPREPLY=($(compgen -d -- "$2")) ;;
	nospace) compopt -o nospace 2>/dev/null ;;
	esac
}
complete -F _wherry wherry
