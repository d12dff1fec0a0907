# bash completion of agentorch and of every agentorch-NAME: the programs themselves say what fits
# (click's protocol: a line `type,value` an answer)

_agentorch() {
    local answer variable
    variable=_${1##*/}_COMPLETE
    variable=${variable//[-.]/_}
    while IFS= read -r answer; do
        case $answer in
        dir,*) compopt -o dirnames ;;
        file,*) compopt -o default ;;
        plain,*) COMPREPLY+=("${answer#*,}") ;;
        esac
    done < <(env COMP_WORDS="$(printf '%s\n' "${COMP_WORDS[@]}")" COMP_CWORD="$COMP_CWORD" \
        "${variable^^}=bash_complete" "$1" 2>/dev/null)
}

# a symbolic link to this file stands for each program; it is read under the program's name
complete -o nosort -F _agentorch agentorch "$(basename -- "${BASH_SOURCE[0]}")"
