"""The written release process: one task a section, in its order; `pre` is that order."""

from invoke import Collection, task

from release_tasks.executor import Survey, follow, section

ENV = "dev, staging or production"
JSON = "print the outcome as JSON"
RESTORE = {
    "from": "a backup: its name, or its folder",
    "into": "dev, staging, production, or the URL of a database",
    "over": "the database's name once more, where it is not empty: it is kept under another name",
}


@section
def preconditions(c, version=None):
    """2. Preconditions"""
    from release_tasks import preconditions

    follow(
        c,
        version,
        preconditions.keep_environments_apart,
        preconditions.stand_on_the_right_branch,
        preconditions.keep_the_tree_clean,
        preconditions.agree_with_the_remote,
        preconditions.have_everything_merged,
        preconditions.have_the_tag_free,
        preconditions.come_after_the_last_release,
        preconditions.have_versions_in_line,
        preconditions.have_a_ddl_pack_in_order,
        preconditions.have_what_commands_name,
        preconditions.start_the_browser_once,
        preconditions.prove_the_ddl_pack,
        preconditions.validate_the_ddl_pack_on_dev,
        preconditions.pass_the_smokes_on_dev,
        preconditions.have_a_test_for_each_condition,
    )


@section(pre=[preconditions])
def freeze(c, version=None, until=None, allow_shift=None):
    """3. Freeze Window"""
    from release_tasks import freeze

    follow(
        c,
        version,
        freeze.announce_the_freeze,
        freeze.cut_the_release_branch,
        freeze.lock_the_ddl_order,
        until=until,
        allow_shift=allow_shift,
    )


@section(pre=[freeze])
def docs_pack(c, version=None):
    """4. Build the Docs Pack"""
    from release_tasks import docs_pack

    follow(c, version, docs_pack.write_the_docs_pack, docs_pack.publish_the_docs_submodule)


@section(pre=[docs_pack])
def tag(c, version=None, sign=False):
    """5. Tag the Release"""
    from release_tasks import tagging

    follow(c, version, tagging.tag_the_release, tagging.push_branch_and_tag, sign=sign)


@section(pre=[tag])
def notes(c, version=None, highlights=None):
    """6. Prepare Release Notes"""
    from release_tasks import notes

    follow(c, version, notes.write_the_notes, notes.push_the_notes, highlights=highlights)


@section(pre=[notes])
def staging(c, version=None):
    """7. Deploy to Staging"""
    from release_tasks import acceptance, deployment

    follow(
        c,
        version,
        deployment.reach_the_environment,
        deployment.put_the_code_in_place,
        deployment.apply_the_ddl_pack,
        deployment.run_the_release,
        deployment.pass_the_smokes,
        deployment.stamp_the_session,
        acceptance.meet_the_conditions,
        where="staging",
    )


@section(pre=[staging])
def production(c, version=None, yes=False):
    """8. Deploy to Production"""
    from release_tasks import deployment, production

    follow(
        c,
        version,
        deployment.reach_the_environment,
        production.have_the_notes_ready,
        production.confirm_production,
        production.back_up_the_database,
        production.verify_the_backup,
        deployment.put_the_code_in_place,
        deployment.apply_the_ddl_pack,
        deployment.stamp_the_session,
        production.pass_the_smokes_before_the_flip,
        deployment.run_the_release,
        where="production",
        yes=yes,
    )


@section(pre=[production])
def archive(c, version=None):
    """9. Archive and Register Evidence Pack"""
    from release_tasks import evidence

    follow(
        c,
        version,
        evidence.build_the_evidence_pack,
        evidence.copy_the_pack_to_its_places,
        evidence.ask_for_what_people_keep,
    )


@section(pre=[archive])
def post_release(c, version=None, next=None):
    """10. Post-Release"""
    from release_tasks import next_cycle

    follow(
        c,
        version,
        next_cycle.merge_the_release_branch_back,
        next_cycle.open_the_next_cycle,
        next_cycle.push_the_main_branch,
        next=next,
    )


@section(pre=[post_release])
def release(c, version=None, until=None, allow_shift=None, sign=False, highlights=None, yes=False, next=None):
    """Take a release through sections 2 to 10; after any stop, the same command goes on."""


@section(pre=[post_release], klass=Survey)
def status(c, version=None, json=False):
    """Look only: each step done, to do or refused."""


@task(help={"env": ENV, "only": "the name of one smoke", "json": JSON})
def smokes(c, env="dev", only=None, json=False):
    """Run the smokes in an environment; `-- -x` is pytest's."""
    from release_tasks import smokes as section_2

    section_2.report(c.config, env, only, json, section_2.words_after_dashes())


@task(
    help={"env": ENV, "version": "that should run there", "watch": "seconds in which it may come to hold", "json": JSON}
)
def accept(c, env="staging", version=None, watch=None, json=False):
    """Check the conditions of section 7.2 in an environment."""
    from release_tasks import acceptance

    acceptance.report(c.config, env, version, watch, json)


@task(help={"version": "the version to rehearse", "keep": "keep the throw-away folder"})
def rehearse(c, version=None, keep=False):
    """Release in a throw-away clone: bare remote, embedded dev, staging and production."""
    from release_tasks import rehearsal

    rehearsal.rehearse(c.config, version, keep)


@task(name="validate", help={"json": JSON})
def ddl_validate(c, json=False):
    """Prove the DDL pack on a scratch server."""
    from release_tasks import ddl

    ddl.validate(c.config, json)


@task(name="apply", help={"env": ENV, "again": "also where nothing is new", "yes": "also to production"})
def ddl_apply(c, env="dev", again=False, yes=False):
    """Apply the DDL pack in an environment."""
    from release_tasks import ddl

    ddl.report_apply(c.config, env, again, yes)


@task(name="drift", help={"env": ENV, "json": JSON})
def ddl_drift(c, env="dev", json=False):
    """Compare a database with what the DDL pack makes."""
    from release_tasks import ddl

    ddl.report_drift(c.config, env, json)


@task(name="take", help={"env": ENV})
def backup_take(c, env="production"):
    """Back up a database, and restore the backup to see that it is one."""
    from release_tasks import backup_tasks

    backup_tasks.take(c.config, env)


@task(name="restore", help=RESTORE)
def backup_restore(c, from_=None, into=None, over=None):
    """Restore a backup into a database."""
    from release_tasks import backup_tasks

    backup_tasks.bring_back(c.config, from_, into, over)


ns = Collection(
    preconditions, freeze, docs_pack, tag, notes, archive, post_release, release, status, smokes, accept, rehearse
)
ns.add_collection(Collection("deploy", staging, production))
ns.add_collection(Collection("ddl", ddl_validate, ddl_apply, ddl_drift))
ns.add_collection(Collection("backup", backup_take, backup_restore))

try:
    import tasks_local  # a repo's own tasks, where it has any
except ModuleNotFoundError as missing:
    if missing.name != "tasks_local":
        raise
else:
    ns.add_collection(Collection.from_module(tasks_local), name="local")
