# SPDX-License-Identifier: GPL-2.0-or-later
_vdsm_completion() {
    local IFS=$'
'
    COMPREPLY=( $( env COMP_WORDS="${COMP_WORDS[*]}" \
                   COMP_CWORD=$COMP_CWORD \
                   _VDSM_COMPLETE=complete_bash $1 ) )
    return 0
}

complete -o default -F _vdsm_completion vdsm
