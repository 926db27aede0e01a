"""An MCP server on fastmcp, over stdio."""

from fastmcp import FastMCP

server = FastMCP("friendly", instructions="Ask for the weather.")


@server.tool(annotations={"readOnlyHint": True})
def weather(city: str, days: int = 1) -> dict[str, str]:
    """Return the weather of a city."""
    return {"city": city, "days": str(days)}


@server.tool(annotations={"destructiveHint": True})
def forget(city: str) -> str:
    """Forget a city."""
    return city


@server.resource("weather://cities")
def cities() -> str:
    """The cities that are known."""
    return "Bern"


@server.resource("weather://{city}/today")
def today(city: str) -> str:
    """Today in a city."""
    return city


@server.prompt
def plan(city: str) -> str:
    """Plan a day."""
    return f"Plan a day in {city}."


if __name__ == "__main__":
    server.run(show_banner=False)
