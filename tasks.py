"""The release process of docs/RELEASE_PROCESS.md: one task a section, in its order; `pre` is that order."""

from invoke import Collection, task

from release_tasks.executor import Survey, follow, section


@section
def preconditions(c, version=None):
    """2. Preconditions"""
    from release_tasks import preconditions as we

    follow(
        c,
        version,
        we.stand_on_the_right_branch,
        we.keep_the_tree_clean,
        we.agree_with_the_remote,
        we.have_everything_merged,
        we.have_the_tag_free,
        we.come_after_the_last_release,
        we.have_versions_in_line,
        we.have_a_ddl_pack_in_order,
        we.validate_the_ddl_pack_on_dev,
        we.pass_the_smokes_on_dev,
    )


@section(pre=[preconditions])
def freeze(c, version=None, until=None):
    """3. Freeze Window"""
    from release_tasks import freeze as we

    follow(c, version, we.announce_the_freeze, we.cut_the_release_branch, we.lock_the_ddl_order, until=until)


@section(pre=[freeze])
def docs_pack(c, version=None):
    """4. Build the Docs Pack"""
    from release_tasks import docs_pack as we

    follow(c, version, we.write_the_docs_pack, we.publish_the_docs_submodule)


@section(pre=[docs_pack])
def tag(c, version=None, sign=False):
    """5. Tag the Release"""
    from release_tasks import tagging as we

    follow(c, version, we.tag_the_release, we.push_branch_and_tag, sign=sign)


@section(pre=[tag])
def notes(c, version=None, highlights=None):
    """6. Prepare Release Notes"""
    from release_tasks import notes as we

    follow(c, version, we.write_the_notes, we.push_the_notes, highlights=highlights)


@section(pre=[notes])
def staging(c, version=None):
    """7. Deploy to Staging"""
    from release_tasks import acceptance
    from release_tasks import deployment as we

    follow(
        c,
        version,
        we.reach_the_environment,
        we.put_the_code_in_place,
        we.apply_the_ddl_pack,
        we.run_the_release,
        we.pass_the_smokes,
        we.stamp_the_session,
        acceptance.answer_api_ok,
        acceptance.render_all_views,
        acceptance.have_fresh_data,
        acceptance.have_no_gaps,
        acceptance.log_no_sql_warnings,
        where="staging",
    )


@section(pre=[staging])
def production(c, version=None, yes=False):
    """8. Deploy to Production"""
    from release_tasks import deployment as we
    from release_tasks import production as only_here

    follow(
        c,
        version,
        we.reach_the_environment,
        only_here.have_the_notes_ready,
        only_here.confirm_production,
        only_here.back_up_the_database,
        we.put_the_code_in_place,
        we.apply_the_ddl_pack,
        we.stamp_the_session,
        only_here.pass_the_smokes_before_the_flip,
        we.run_the_release,
        where="production",
        yes=yes,
    )


@section(pre=[production])
def archive(c, version=None):
    """9. Archive and Register Evidence Pack"""
    from release_tasks import evidence as we

    follow(c, version, we.build_the_evidence_pack, we.copy_the_pack_to_its_places, we.ask_for_what_people_keep)


@section(pre=[archive])
def post_release(c, version=None, next=None):
    """10. Post-Release"""
    from release_tasks import next_cycle as we

    follow(c, version, we.merge_the_release_branch_back, we.open_the_next_cycle, we.push_the_main_branch, next=next)


@section(pre=[post_release])
def release(c, version=None, until=None, sign=False, highlights=None, yes=False, next=None):
    """Take a release through sections 2 to 10; after any stop, the same command goes on."""


@section(pre=[post_release], klass=Survey)
def status(c, version=None, json=False):
    """Look only: each step done, to do or refused."""


@task(help={"env": "dev, staging or production", "only": "the name of one smoke"})
def smokes(c, env="dev", only=None):
    """Run the smokes in an environment."""
    from release_tasks import smokes as room

    room.report(c.config, env, only)


@task(help={"version": "the version to rehearse", "keep": "keep the throw-away folder"})
def rehearse(c, version=None, keep=False):
    """Release in a throw-away clone: bare remote, embedded dev, staging and production."""
    from release_tasks import rehearsal

    rehearsal.rehearse(c.config, version, keep)


ns = Collection(preconditions, freeze, docs_pack, tag, notes, archive, post_release, release, status, smokes, rehearse)
ns.add_collection(Collection("deploy", staging, production))

try:
    import tasks_local  # a repo's own tasks, where it has any
except ModuleNotFoundError as missing:
    if missing.name != "tasks_local":
        raise
else:
    ns.add_collection(Collection.from_module(tasks_local), name="local")
