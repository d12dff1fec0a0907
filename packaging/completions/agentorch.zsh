#compdef agentorch -P agentorch-*
# zsh completion of agentorch and of every agentorch-NAME: the programs themselves say what fits
# (click's protocol: three lines an answer, type, value and help)

local program=${words[1]:t}
local variable=_${${(U)program}//[-.]/_}_COMPLETE
local -a answers described plain
local type value help

answers=("${(@f)$(env COMP_WORDS="${(F)words}" COMP_CWORD=$((CURRENT - 1)) \
    $variable=zsh_complete $words[1] 2>/dev/null)}")
for type value help in $answers; do
    case $type in
    dir) _path_files -/ ;;
    file) _path_files -f ;;
    plain) [[ $help == _ ]] && plain+=("$value") || described+=("$value:$help") ;;
    esac
done
(( ! $#described )) || _describe -V agentorch described -U
(( ! $#plain )) || compadd -U -V agentorch -a plain
