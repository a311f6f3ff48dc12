"""Section 2: what must be so before a release begins; each gate answers with all the problems it sees."""

import posixpath
import re
import shlex
import shutil
from fnmatch import fnmatchcase

from release_tasks import ddl, embedded, environments, git_setup, lines, node, suites, versions
from release_tasks.checks import browser, document
from release_tasks.database import apply
from release_tasks.database.pack import pack_problems
from release_tasks.deploy import code
from release_tasks.errors import Manual, Problem, Refused, counted, listed, refuse, require
from release_tasks.release import Release, Step, until_live, until_published
from release_tasks.sections import deployment, docs_pack, landing, tag, withdrawal
from release_tasks.settings import PROGRAM
from release_tasks.version_files import file_version_problems, version_in

OUR_OWN = re.compile(r"release/(lock(-.*)?|.*-back)")  # branches that are not for merging: the lock, pull requests


def check_environments_differ(release: Release) -> str:
    """Dev, staging and production share no database, folder or origin."""
    problems, unreached = environments.shared_problems(release.root, release.settings)
    refuse(problems)
    wrong = [name for name in ("dev", "staging", "production") if release.settings.environments.problems(name)]
    notes = [f"{', '.join(unreached)} could not be reached: compared by address"] if unreached else []
    return "; ".join([*notes, *(f"{name} was not compared: its variables or its DSN are not right" for name in wrong)])


def check_branch(release: Release) -> str:
    """The whole history is here, and the main, the support or the release branch is checked out."""
    git, base, support = release.git, release.base, release.settings.support_of(release.version)
    found = f"the branch {git.branch}" if git.branch else "a detached HEAD"
    expected = sorted({base, release.branch, *([release.settings.main] if release.is_over else [])})
    elsewhere = git.look("for-each-ref", "--format=%(worktreepath)", release.base_ref).stdout.strip()
    is_elsewhere = elsewhere and git.branch == release.branch != base and not release.is_over
    unfinished = git_setup.under_way(git.repo.git_dir)
    is_unknown = any(git.look("var", who).code for who in ("GIT_COMMITTER_IDENT", "GIT_AUTHOR_IDENT"))
    switch = f"git switch {base}   # or to fix an older version: git push {git.remote} {support}"
    let_go = f"git -C {shlex.quote(elsewhere)} switch --detach   # or if that is gone: git worktree prune"
    finish = "git status   # then finish or abort it; remove a lock that a crash left"
    introduce = 'git config user.name "…" && git config user.email "…"'
    whole = "git sparse-checkout disable"
    another = f"git clone $(git remote get-url {git.remote}) ../whole   # a clone without --filter"
    unshallow = f"git fetch --unshallow --tags {git.remote}"
    checks = [
        (git.is_shallow, "This clone is shallow; a release needs the whole history.", unshallow),
        (git.is_set(f"remote.{git.remote}.promisor"), "This clone is partial; evidence needs all objects.", another),
        (unfinished, f"Git has something unfinished here: {unfinished}.", finish),
        (git.branch not in expected, f"Found {found}; expected {' or '.join(expected)}.", switch),
        (is_elsewhere, f"{base}, which section 10 switches to, is checked out in {elsewhere}.", let_go),
        (git.is_set("core.sparseCheckout"), "This checkout is sparse; a release needs all files.", whole),
        (is_unknown, "Git does not know who commits; expected user.name and user.email.", introduce),
    ]
    refuse(Problem(what, fix) for is_so, what, fix in checks if is_so)
    return f"on {git.branch}"


def check_tree_is_clean(release: Release) -> Step:
    """The working tree is clean, but for what a run of this release left half-way."""
    git = release.git
    paths, ours = git.dirty_paths(), git.half_committed()
    if dirty := [path for path in paths if path not in ours]:
        raise Refused(
            f"The working tree has {counted(len(dirty), 'uncommitted change')}: {listed(dirty)}.",
            "git stash --include-untracked\n"
            "git add --all && git commit   # or this; after the tag only for what drives the release, as invoke.yaml",
        )
    if paths and git.branch != release.branch:
        yield f"git restore {listed(paths)}: the step that was stopped writes them again"
        git.run("add", "--", *paths)  # else git knows none that is new
        git.run("restore", "--staged", "--worktree", "--", *paths)
    return ""


@until_published
def check_branch_is_up_to_date(release: Release) -> str:
    """The branch has everything that the remote's has, and the remote would take it."""
    branches = dict.fromkeys([release.git.branch or release.base, release.branch])
    refuse(problem for branch in branches for problem in landing.behind_problems(release, branch))
    refuse(code.unpushed_problems(release.git, release.settings.docs_pack.folder))  # ours is pushed with the release
    refuse(docs_pack.behind_problems(release))
    refuse(tag.push_problems(release))
    return ""


@until_published
def check_everything_is_merged(release: Release) -> str:
    """Every branch meant for this version is merged."""
    patterns = [pattern.format(version=release.version, tag=release.tag) for pattern in release.settings.must_be_merged]
    if not patterns:
        return Manual(f"must_be_merged has no pattern, so ask the team: is all that is meant for {release.tag} merged?")
    git, remote, problems = release.git, release.settings.remote, list[Problem]()
    for ref, commit in git.remote_refs.items():
        name = ref.removeprefix("refs/heads/")
        is_meant = name != ref and any(fnmatchcase(name, each) for each in patterns) and not OUR_OWN.fullmatch(name)
        if is_meant and not lines.has_merged(git, release.tip, git.remote_commit(ref) or ""):
            fix = f"{landing.to_its_branch(release)}git pull --no-rebase --ff --no-edit {remote} {name}"
            problems.append(Problem(f"The branch {name} ({commit:.9}) is not merged.", fix))
    refuse(problems)
    return ", ".join(patterns)


def check_tag_is_free(release: Release) -> str:
    """The tag is free, here and on the remote, or it is this release's own."""
    if found := lines.withdrawn(release.git, release.settings, release.version):
        raise Refused(f"{release.tag}: {found}", release.again(version=versions.fixed_in(release.version)))
    refuse(tag.tag_problems(release))
    return f"{release.tag} is " + (f"ours, {release.published:.9}" if release.published else "free")


@until_published
def check_version_order(release: Release) -> str:
    """No later version has been released from here, and none before it is left out."""
    last = release.last()
    refuse(release.line.problems(release.version, landing.to_its_branch(release)))
    return f"the last is {last}" if last else "the first"


@until_published
def check_version_files(release: Release) -> str:
    """VERSION, SOURCE_TAG and every version file are well-formed, in line and not past the target."""
    git, tip, target = release.git, release.tip, release.version
    version, source_tag = release.version_at(tip), (git.text_at(tip, "SOURCE_TAG") or "").strip()
    problems = file_version_problems("VERSION", version, target)
    problems += file_version_problems("SOURCE_TAG", source_tag.removeprefix(release.settings.tag_of("")), target)
    for file in release.settings.version_files:
        try:
            if (found := version_in(file, git.bytes_at(tip, file.path))) not in (version, target):
                what = f"{file.path} says version {found!r}; expected {version!r} as in VERSION."
                problems.append(Problem(what, f"Set the version in {file.path}, and commit."))
        except Refused as no:
            problems += no.problems
    refuse(problems)
    return f"{version} now"


def check_ddl_pack(release: Release) -> str:
    """The DDL pack is there, in order, in UTF-8."""
    pack, settings = release.pack, release.settings.ddl
    refuse(pack_problems(pack, settings))
    numbers = [re.sub(r"\D.*", "", file.name) for file in pack] if settings.order != "bytes" else []
    twins = [file.name for file, number in zip(pack, numbers, strict=False) if number and numbers.count(number) > 1]
    alike = f"; same number, ordered by release.ddl.order: {listed(twins)}" if twins else ""
    return f"{counted(len(pack), 'file')}, {pack[0].name} to {pack[-1].name}{alike}"


@until_published
def check_commands_exist(release: Release) -> str:
    """The files and programs that the commands of invoke.yaml name are there."""
    settings, folder = release.settings, environments.folder_in(release.root, release.settings)
    problems = list[Problem]()
    list(code.trees(release.git, release.tip))  # which refuses a submodule without its commit
    packages = environments.package_files(folder) if settings.install else []
    for key, word in [*settings.scripts, *(("install", file) for file in packages)]:
        file = posixpath.normpath(posixpath.join(settings.folder, word))
        is_built = key != "install" and release.git.look("check-ignore", "--quiet", file).code == 0
        if release.git.bytes_at(release.tip, file) is None and not (is_built and settings.install):
            what = f"release.{key} needs {word}, and {file} is not committed."
            fix = f"git add {file} && git commit   # or correct release.{key} in invoke.yaml"
            problems.append(Problem(what, landing.to_its_branch(release) + fix))
    path = None
    if settings.uses_node:
        refuse(problems)
        release.only_in_a_run()  # Node and pnpm may have to be installed
        path = node.runtime(folder, release.folder.parent)["PATH"]
    for key, command in settings.commands.items():
        if not PROGRAM.fullmatch(command[0]) and not shutil.which(command[0], path=path):
            program = shlex.quote(command[0])
            what = f"release.{key} runs {program}, and there is no such program."
            problems.append(Problem(what, f"which {program}   # or correct release.{key} in invoke.yaml"))
    refuse(problems)
    return ", ".join(settings.commands)


@until_published
def try_install(release: Release) -> str:
    """What is committed can be installed, without anything that only lies in this folder."""
    release.only_in_a_run()
    settings, commit, install = release.settings, release.tip, release.environment("dev").install
    tree = code.make_ready(release.git, release.tag, commit, install)
    folder = tree / settings.folder
    missing = [f"release.{key} needs {word}" for key, word in settings.scripts if not (folder / word).exists()]
    where = f"ls {shlex.quote(str(folder))}   # there release.install was run"
    refuse(Problem(f"{what}, which is not there after release.install.", where) for what in missing)
    if changed := list(code.changed_files(release.git, commit, str(tree))):  # section 7.2 would refuse them, too late
        fix = f"Let .gitattributes have a line for each, as: {changed[0]} rewritten   # and commit it"
        raise Refused(f"release.install rewrites what is committed: {listed(changed)}.", fix)
    return " ".join(settings.install) or "release.install is not set"


@until_live
def try_browser(release: Release) -> str:
    """The browser that checks the views starts, and opens a page."""
    release.only_in_a_run()
    return browser.start_once() if document.uses_a_browser(release.root) else "no test uses a browser"


@until_published
def prove_the_ddl_pack(release: Release) -> str:
    """The DDL pack is proved on a scratch server: from empty, again, over the last release, over dev's rows."""
    last, pack = release.last(), release.pack
    release.only_in_a_run()
    proved = ddl.proof_of(pack, release.pack_of(last), release.root, release.settings, release.environment("dev").dsn)
    release.keep_check("ddl-proof", over=last, **proved.model_dump())
    refuse([*proved.problems, *withdrawal.ddl_problems(release)])
    return f"{proved}{proved.exceptions}"


@until_published
def validate_the_ddl_pack_on_dev(release: Release) -> Step:
    """Apply the DDL pack on dev."""
    return (yield from deployment.apply_the_ddl_pack(release, release.environment("dev")))


@until_published
def run_smokes_on_dev(release: Release) -> str:
    """The smokes pass on dev."""
    refuse(document.smoke_problems(release.root))
    dev = _dev_with_the_pack(release)
    embedded.serve(dev)
    return suites.pass_smokes(release, dev)


@until_published
def check_conditions_have_tests(release: Release) -> str:
    """Each condition of section 7.2 has a test, and its queries run on dev."""
    refuse(document.condition_problems(release.root))
    refuse(suites.problems_on_dev(release, _dev_with_the_pack(release)))
    waived = [f"{condition}: waived, {reason}" for condition, reason in document.waivers(release.root).items()]
    return "; ".join(waived or ["all queries ran on dev"])


def _dev_with_the_pack(release: Release) -> environments.Environment:
    dev = release.environment("dev")
    require(not apply.unapplied(dev, release.pack), "after the DDL pack is applied there")
    return dev
