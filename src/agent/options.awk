# options.awk: the options of `tasker-agent --help`, as rows of a table of doc/agent.md
# (FORM=markdown) or as paragraphs of the manual page (FORM=man).

/^Options without a subcommand/ {
    listed = 1
    if (FORM == "markdown") {
        print "| option | default | changed by | meaning |"
        print "|---|---|---|---|"
    }
    next
}
!listed { next }

/^  --/ {
    option = substr($0, 3)
    next
}

{
    sub(/^ +/, "")
    reloads = sub(/; SIGHUP changes it$/, "")
    standard = ""
    if (match($0, / \(default: [^()]*\)$/)) {
        standard = substr($0, RSTART + 11, RLENGTH - 12)
        $0 = substr($0, 1, RSTART - 1)
    }
    if (FORM == "man") {
        name = option
        argument = ""
        if (match(option, / /)) {
            name = substr(option, 1, RSTART - 1)
            argument = substr(option, RSTART + 1)
        }
        gsub(/-/, "\\-", name)
        print ".TP"
        print ".B " name (argument == "" ? "" : " \\fI" argument "\\fR")
        gsub(/\\/, "\\e")
        gsub(/-/, "\\-")
        sub(/^\./, "\\\\\\&.")
        gsub(/-/, "\\-", standard)
        print toupper(substr($0, 1, 1)) substr($0, 2) "." (standard == "" ? "" : " Default: " standard ".") (reloads ? " SIGHUP changes it." : "")
    } else {
        gsub(/\|/, "\\|")
        print "| `" option "` | " (standard == "" ? "" : "`" standard "`") " | " (reloads ? "SIGHUP" : "") " | " toupper(substr($0, 1, 1)) substr($0, 2) ". |"
    }
}
