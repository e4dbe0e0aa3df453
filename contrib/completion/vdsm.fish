# SPDX-License-Identifier: GPL-2.0-or-later
complete --command vdsm --no-files --arguments "(env _VDSM_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS=(commandline -cp) vdsm)" --condition "env _VDSM_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=is-args _TYPER_COMPLETE_ARGS=(commandline -cp) vdsm"
