"""What the shop does in the background."""

from django.tasks import TaskContext, task

from jobmill import Fail, current_context


@task(queue_name="mail")
def send_receipt(customer: str) -> str:
    current_context().log("sending", to=customer)
    return f"receipt for {customer}"


@task(takes_context=True)
async def count_stock(context: TaskContext, shelf: int) -> int:
    return shelf * context.attempt


@task
def charge(customer: str) -> None:
    raise Fail(f"{customer} has no money")


@task(takes_context=True)
def fetch_prices(context: TaskContext) -> int:
    if context.attempt == 1:
        raise ConnectionError("the supplier does not answer")
    return context.attempt
