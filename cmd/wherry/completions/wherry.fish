# fish completion for wherry. For the running shell: wherry completion fish | source
function __wherry_complete
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    set -l program $words[1]
    string match -qr '(^|/)wherry$' -- "$program"; or set program wherry
    # The first line says what the shell adds, the others are candidates and their descriptions.
    set -l answer (command $program __complete fish $words[2..] "$word" 2>/dev/null)
    set -l head (string match -r -- '^-[^=]*=' "$word")
    switch "$answer[1]"
        case files
            printf "$head%s\n" (__fish_complete_path (string replace -- "$head" '' "$word"))
        case folders
            printf "$head%s\n" (__fish_complete_directories (string replace -- "$head" '' "$word") '')
        case '*'
            printf '%s\n' $answer[2..]
    end
end
complete -c wherry -f -a '(__wherry_complete)'
